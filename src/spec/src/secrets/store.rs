//! Files that secrets can be written to: dotenv files, and those that are encrypted with age. Writes whole files or none; the
//! plain text of an encrypted one is never on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::Failure;
use flotilla_model::names;
use flotilla_model::spec::{Environment, SecretSource};

use super::Secrets;
use super::age;
use super::entries::{self, Form};
use super::source::{Cipher, Content, File, Kind, identities};

/// A file that a secret can be written to.
pub struct Store<'a> {
    secrets: &'a Secrets,
    listed: &'a SecretSource,
    file: &'a File,
    environment: Environment,
}

impl Secrets {
    /// Returns the files that can be written to, in the order of the sources; of those with one for each environment, each, and also those
    /// of these environments.
    pub fn stores(&self, environments: &BTreeSet<Environment>) -> Vec<Store<'_>> {
        let mut stores = Vec::new();
        for source in &self.sources {
            let Kind::File(file) = &source.kind else { continue };
            if matches!(file.cipher, Cipher::Sops { .. }) {
                continue;
            }
            let more = environments.iter().copied().filter(|_| file.varies());
            let each: BTreeSet<Environment> = file.environments().chain(more).collect();
            stores.extend(each.into_iter().map(|environment| Store {
                secrets: self,
                listed: &source.listed,
                file,
                environment,
            }));
        }
        stores
    }
}

impl Store<'_> {
    /// Returns its path, as fleet.yaml has it.
    pub fn path(&self) -> String {
        self.file.path_in(self.environment)
    }

    /// Returns its path on disk.
    pub fn on_disk(&self) -> PathBuf {
        self.file.on_disk(self.environment)
    }

    /// Returns the environment that it is for, if it isn't for all.
    pub fn environment(&self) -> Option<Environment> {
        self.file.varies().then_some(self.environment)
    }

    /// Returns whether values of this name are looked up in it, by what fleet.yaml says of its source.
    pub fn takes(&self, name: &str) -> bool {
        let for_deploys = self.listed.is_for_deploys() && !name.contains("__");
        let bare = names::owners(name).map(|owner| &name[owner.len()..]);
        for_deploys || std::iter::once(name).chain(bare).any(|name| self.listed.admits(name))
    }

    /// Returns whether it holds values in plain text.
    pub fn is_clear(&self) -> bool {
        matches!(self.file.cipher, Cipher::Clear)
    }

    /// Returns whether it has a name, or why that isn't known.
    pub fn has(&self, name: &str) -> Result<bool, String> {
        match self.file.content(self.environment, |name| self.secrets.named(name)) {
            Content::Values(values) => Ok(values.contains_key(name)),
            Content::Absent => Ok(false),
            Content::Closed(why) => Err(why.clone()),
        }
    }

    /// Sets an entry, and makes the file if it doesn't exist. All other lines stay as they are.
    pub fn set(&self, name: &str, value: &SecretString) -> Result<(), Failure> {
        let (path, variable) = (self.on_disk(), |name: &str| self.secrets.named(name));
        let failure = |why: String| Failure::new(format!("{} was not changed: {why}", self.path()));
        let text = self.file.plain(self.environment, variable).map_err(failure)?.unwrap_or_default();
        match &self.file.cipher {
            Cipher::Age { identity, recipients } => {
                let text = entries::set(&text, Form::of(&self.file.path), name, value).map_err(failure)?;
                // To create a new file for named recipients, no identity is needed.
                let keys = match recipients {
                    Some(_) => Vec::new(),
                    None => identities(&self.file.root, identity, variable).map_err(failure)?,
                };
                let recipients = age::recipients(recipients.as_deref(), &keys).map_err(failure)?;
                replace(&path, &age::close(&text, &recipients).map_err(failure)?, 0o644)
            }
            Cipher::Clear | Cipher::Sops { .. } => {
                let text: Zeroizing<String> = entries::set(&text, Form::Dotenv, name, value).map_err(failure)?;
                replace(&path, text.as_bytes(), 0o600)
            }
        }
        .map_err(|error| failure(error.to_string()))
    }
}

/// Replaces a file, which keeps its permissions; a new one gets a mode.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other("it is a symbolic link or not a file: name the file itself"));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    AtomicFile::new(path).known_temporary().mode(mode).keep_permissions().durable().write(bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    use flotilla_model::spec::IdentityPlace;
    use secrecy::ExposeSecret as _;

    fn open(root: &Path, listed: &[SecretSource]) -> Secrets {
        Secrets::open(root, Some(listed), None, false).unwrap()
    }

    #[test]
    fn a_dotenv_file_is_made_for_its_owner_alone_and_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let listed = [SecretSource { dotenv: Some("secrets/{environment}.env".to_owned()), ..SecretSource::default() }];
        let set = |value: &str| {
            let secrets = open(folder.path(), &listed);
            let stores = secrets.stores(&BTreeSet::new());
            assert_eq!(stores[1].path(), "secrets/staging.env");
            stores[1].set("A_B", &value.into()).unwrap();
        };
        set("one");
        let path = folder.path().join("secrets/staging.env");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("A_B=one\n", 0o600));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        set("two words");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("A_B='two words'\n", 0o640));
        let secrets = open(folder.path(), &listed);
        let of = |environment| secrets.value("acme", environment, "A_B").map(|value| value.expose_secret().to_owned());
        assert_eq!((of(Environment::Staging).as_deref(), of(Environment::Production)), (Some("two words"), None));
        assert_eq!(fs::read_dir(folder.path().join("secrets")).unwrap().count(), 1);
        // A link is not replaced.
        std::os::unix::fs::symlink(&path, folder.path().join("secrets/production.env")).unwrap();
        assert!(secrets.stores(&BTreeSet::new())[2].set("A", &"x".into()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "A_B='two words'\n");
    }

    #[test]
    fn an_encrypted_file_is_written_for_its_recipients() {
        let folder = tempfile::tempdir().unwrap();
        let [own, other] = [(); 2].map(|()| ::age::x25519::Identity::generate());
        let key = |identity: &::age::x25519::Identity, name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, identity.to_string().expose_secret()).unwrap();
            Some(IdentityPlace { env: None, file: Some(path.to_string_lossy().into_owned()) })
        };
        let source = |identity, recipients| SecretSource {
            age: Some("fleet.yaml.age".to_owned()),
            identity,
            recipients,
            ..SecretSource::default()
        };
        let both = Some(vec![own.to_public().to_string(), other.to_public().to_string()]);
        let secrets = open(folder.path(), &[source(key(&own, "own"), both)]);
        secrets.stores(&BTreeSet::new())[0].set("A", &"canary: \"1\"".into()).unwrap();
        for name in ["own", "other"] {
            let identity = if name == "own" { &own } else { &other };
            let secrets = open(folder.path(), &[source(key(identity, name), None)]);
            let value = secrets.value("acme", Environment::Production, "A").unwrap();
            assert_eq!(value.expose_secret(), "canary: \"1\"");
        }
        // Who can't open it can't add to it, either.
        let nobody = ::age::x25519::Identity::generate();
        let secrets = open(folder.path(), &[source(key(&nobody, "nobody"), None)]);
        let failure = secrets.stores(&BTreeSet::new())[0].set("B", &"x".into()).unwrap_err().to_string();
        assert_eq!(failure, "fleet.yaml.age was not changed: it isn't encrypted for this identity");
    }
}
