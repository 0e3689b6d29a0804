//! The sources of the values of secrets: the environment, dotenv files outside git, files that are encrypted with
//! age or SOPS, and programs. Values leave this module only as `SecretString`, which prints as nothing.
//!
//! The sources have an order, and the first one that has a value wins. If one is unavailable, because its key is not on this machine or its
//! program fails, those after it are not used: otherwise, an old value from one of them would be uploaded in place of the right one.

pub mod access;
mod age;
mod command;
mod entries;
mod program;
mod service_keys;
mod source;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::Failure;
use flotilla_model::fingerprint::Fingerprints;
use flotilla_model::names::{own_secret, without_own};
use flotilla_model::service_key;
use flotilla_model::spec::{DOTENV, Environment, SecretSource};

pub use source::files_by_environment;
use source::{Answer, Content, Kind, Source};
pub use store::Store;

/// The sources of secrets, in their order.
pub struct Secrets {
    sources: Vec<Source>,
    environment: HashMap<String, SecretString>,
    made_up: bool,
}

/// A value that was found.
#[derive(Clone, Debug)]
pub struct FoundSecret {
    /// The value.
    pub value: SecretString,
    /// The source that it comes from: `environment`, the path of a file, a program.
    pub source: String,
    /// The name that it has there.
    pub name: String,
}

/// A variable that one of the project's files sets, and that no such file may set.
pub struct SetByProject {
    /// The file.
    pub file: String,
    /// The value.
    pub value: String,
}

/// The result of looking up a secret in the sources.
#[derive(Clone, Debug)]
pub enum Finding {
    /// Its value.
    Value(FoundSecret),
    /// No source has it.
    Nowhere,
    /// A source before all those that have it is unavailable.
    Hidden {
        /// The source.
        source: String,
        /// The reason.
        why: String,
        /// Whether it is a file with errors, on this machine and on any other.
        is_broken: bool,
    },
}

impl Secrets {
    /// Returns the sources of a fleet: those that fleet.yaml lists, or the environment and `.env`. A `named` dotenv file takes the place of
    /// the listed ones. Made up: a secret that no source has gets a value that only works in the local Cloudflare emulator. Files are read,
    /// and programs are run, at their first use; a `named` file is read here.
    pub fn open(
        root: &Path,
        listed: Option<&[SecretSource]>,
        named: Option<&Path>,
        made_up: bool,
    ) -> Result<Secrets, Failure> {
        let environment: HashMap<String, SecretString> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, SecretString::from(value)))
            .collect();
        let mut secrets = Secrets { sources: Vec::new(), environment, made_up };
        let default = [
            SecretSource { env: Some(true), ..SecretSource::default() },
            SecretSource { dotenv: Some(DOTENV.to_owned()), ..SecretSource::default() },
        ];
        let mut named = named.map(Source::named).transpose()?;
        for listed in listed.unwrap_or(&default) {
            let replaced = listed.dotenv.is_some() && (named.is_some() || secrets.sources.iter().any(Source::is_named));
            if !replaced {
                secrets.sources.push(Source::new(root, listed));
            }
            // The position that the first dotenv file would have.
            if listed.dotenv.is_some() {
                secrets.sources.extend(named.take());
            }
        }
        // No other is listed: what is named on the command line comes first.
        if let Some(named) = named {
            secrets.sources.insert(0, named);
        }
        Ok(secrets)
    }

    /// Returns a variable of this machine, such as an account's id: from the environment, and then from dotenv files.
    pub fn named(&self, name: &str) -> Option<SecretString> {
        self.find_named(name).map(|found| found.value)
    }

    /// Returns a variable of this machine as [`Secrets::named`] does, with the source that it comes from.
    pub fn find_named(&self, name: &str) -> Option<FoundSecret> {
        let found = |value, source: String| FoundSecret { value, source, name: name.to_owned() };
        if let Some(value) = self.environment.get(name) {
            return Some(found(value.clone(), "environment".to_owned()));
        }
        let mut for_deploys = self.sources.iter().filter(|source| source.listed.is_for_deploys());
        for_deploys.find_map(|source| Some(found(source.clear(name)?, source.label(Environment::Production))))
    }

    /// Returns a variable that decides where tokens are sent, from what the person who runs the program chose: the environment, or the dotenv
    /// file of the command line. The error is the project's own file that sets it, with its value.
    pub fn chosen(&self, name: &str) -> Result<Option<SecretString>, SetByProject> {
        if let Some(value) = self.environment.get(name) {
            return Ok(Some(value.clone()));
        }
        let set = self.sources.iter().find_map(|source| Some((source, source.clear(name)?)));
        match set {
            None => Ok(None),
            Some((source, value)) if source.is_named() => Ok(Some(value)),
            Some((source, value)) => {
                let file = source.label(Environment::Production);
                Err(SetByProject { file, value: value.expose_secret().to_owned() })
            }
        }
    }

    /// Returns a secret of no customer, such as an account's token: from the environment, and then from the sources that are the same
    /// for all customers and environments.
    pub fn token(&self, name: &str) -> Option<SecretString> {
        match self.find_token(name) {
            Finding::Value(found) => Some(found.value),
            Finding::Nowhere | Finding::Hidden { .. } => None,
        }
    }

    /// Looks up a secret of no customer, as [`Secrets::token`] does.
    fn find_token(&self, name: &str) -> Finding {
        let found = |value, source| Finding::Value(FoundSecret { value, source, name: name.to_owned() });
        if let Some(value) = self.environment.get(name) {
            return found(value.clone(), "environment".to_owned());
        }
        for source in self.sources.iter().filter(|source| source.is_for_all() && source.listed.is_for_deploys()) {
            match self.look_up(source, Environment::Production, name, None) {
                Answer::Value(value) => return found(value, source.label(Environment::Production)),
                Answer::None => {}
                Answer::Unknown(why) => {
                    let (is_broken, source) = (source.is_clear(), source.label(Environment::Production));
                    return Finding::Hidden { source, why, is_broken };
                }
            }
        }
        Finding::Nowhere
    }

    /// Looks up a customer's secret. Its own value, `CUSTOMER__NAME`, counts before one that is for all, whichever source has it: a
    /// customer must not get another's value because its source comes first.
    pub fn find(&self, customer: &str, environment: Environment, name: &str) -> Finding {
        if let Some(path) = service_key::path(name) {
            return self.service_key(path);
        }
        let (own, base) = (own_secret(customer, name), without_own(customer, name));
        for (name, whose) in [(own.as_str(), Some((customer, name))), (name, None)] {
            for source in self.sources.iter().filter(|source| source.listed.admits(base)) {
                match self.look_up(source, environment, name, whose) {
                    Answer::Value(value) => {
                        let (source, name) = (source.label(environment), name.to_owned());
                        return Finding::Value(FoundSecret { value, source, name });
                    }
                    Answer::None => {}
                    Answer::Unknown(_) if self.made_up && !source.is_clear() => return self.make_up(customer, name),
                    Answer::Unknown(why) => {
                        let (is_broken, source) = (source.is_clear(), source.label(environment));
                        return Finding::Hidden { source, why, is_broken };
                    }
                }
            }
        }
        if self.made_up { self.make_up(customer, name) } else { Finding::Nowhere }
    }

    fn make_up(&self, customer: &str, name: &str) -> Finding {
        let value = SecretString::from(format!("made-up-for-{customer}-{name}"));
        Finding::Value(FoundSecret { value, source: "made up".to_owned(), name: name.to_owned() })
    }

    /// Returns the value of a customer's secret.
    pub fn value(&self, customer: &str, environment: Environment, name: &str) -> Option<SecretString> {
        match self.find(customer, environment, name) {
            Finding::Value(found) => Some(found.value),
            Finding::Nowhere | Finding::Hidden { .. } => None,
        }
    }

    /// Returns the fingerprints of a worker's secrets, by binding, as far as their values are known here.
    pub fn fingerprints(&self, worker: &Worker, fingerprints: &Fingerprints) -> BTreeMap<String, String> {
        let known = worker.secrets.iter().filter_map(|(binding, name)| {
            let value = self.value(&worker.customer, worker.environment, name)?;
            Some((binding.clone(), fingerprints.of(value.expose_secret())))
        });
        known.collect()
    }

    /// Looks up what these workers need where that takes time: programs are run side by side, and their results are
    /// kept. Without it, they are run one by one.
    pub fn prepare<'a>(&self, workers: impl IntoIterator<Item = &'a Worker>) {
        let most = self.sources.iter().filter_map(Source::at_once).max();
        let Some(most) = most else { return };
        let mut wanted: Vec<(&str, Environment, &str)> = workers
            .into_iter()
            .flat_map(|worker| {
                worker.secrets.values().map(|name| (worker.customer.as_str(), worker.environment, name.as_str()))
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..most.min(wanted.len()) {
                scope.spawn(|| {
                    while let Some((customer, environment, name)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _ = self.value(customer, *environment, name);
                    }
                });
            }
        });
    }

    /// Returns the sources that were used and are unavailable, each with the reason.
    pub fn closed(&self) -> Vec<(String, String)> {
        self.sources.iter().flat_map(Source::closed).collect()
    }

    /// Returns the errors of dotenv files that were used and can't be read.
    pub fn errors(&self) -> Vec<Diagnostic> {
        self.sources.iter().flat_map(Source::errors).collect()
    }

    /// Returns the files of names and values, with the names in them: dotenv files, and others as far as they were read.
    pub fn names(&self) -> BTreeMap<String, Vec<String>> {
        self.sources.iter().flat_map(Source::names).collect()
    }

    /// Looks a name up in one source; for a customer's own secret, `whose` has the customer and the name that it has
    /// for all.
    fn look_up(&self, source: &Source, environment: Environment, name: &str, whose: Option<(&str, &str)>) -> Answer {
        // An empty value is none, whichever source has it: an empty secret is never intended; it is a line that isn't filled in yet.
        let lookup = |values: &HashMap<String, SecretString>| {
            let value = values.get(name).filter(|value| !value.expose_secret().is_empty());
            value.cloned().map_or(Answer::None, Answer::Value)
        };
        match &source.kind {
            Kind::Environment => lookup(&self.environment),
            Kind::File(file) => match file.content(environment, |name| self.named(name)) {
                Content::Values(values) => lookup(values),
                Content::Absent => Answer::None,
                Content::Closed(why) => Answer::Unknown(why.clone()),
            },
            Kind::Program(program) => program.run_for(environment, name, whose),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::spec::SourcePurpose;

    fn values(pairs: &[(&str, &str)]) -> HashMap<String, SecretString> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), SecretString::from(*value))).collect()
    }

    fn dotenv(path: &str) -> SecretSource {
        SecretSource { dotenv: Some(path.to_owned()), ..SecretSource::default() }
    }

    fn command(script: &str) -> SecretSource {
        let words = ["sh", "-c", script, "{name}", "{customer}", "{environment}"];
        SecretSource { command: Some(words.map(str::to_owned).into()), ..SecretSource::default() }
    }

    fn environment() -> SecretSource {
        SecretSource { env: Some(true), ..SecretSource::default() }
    }

    /// Returns the value that is found, and its source.
    fn described(secrets: &Secrets, customer: &str, name: &str) -> String {
        match secrets.find(customer, Environment::Production, name) {
            Finding::Value(found) => format!("{} = {} from {}", found.name, found.value.expose_secret(), found.source),
            Finding::Nowhere => "nowhere".to_owned(),
            Finding::Hidden { source, why, .. } => format!("hidden by {source}: {why}"),
        }
    }

    fn open(folder: &Path, listed: &[SecretSource]) -> Secrets {
        Secrets::open(folder, Some(listed), None, false).unwrap()
    }

    #[test]
    fn the_customers_own_value_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.env"), "CAFE_CENTRAL__T=own\nT=file\nU=file\n").unwrap();
        let mut secrets = open(folder.path(), &[environment(), dotenv("a.env")]);
        secrets.environment = values(&[("T", "env")]);
        assert_eq!(described(&secrets, "cafe-central", "T"), "CAFE_CENTRAL__T = own from a.env");
        assert_eq!(
            described(&secrets, "acme", "T"),
            "T = env from environment",
            "of two that are for all, the first counts"
        );
        let mut secrets = open(folder.path(), &[dotenv("a.env"), environment()]);
        secrets.environment = values(&[("T", "env")]);
        assert_eq!(described(&secrets, "acme", "T"), "T = file from a.env");
        assert_eq!(described(&secrets, "acme", "NOT_THERE"), "nowhere");
    }

    #[test]
    fn without_a_list_it_is_the_environment_and_the_dotenv_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".env"), "A=default\nB=default\n").unwrap();
        std::fs::write(folder.path().join("named"), "A=named\n").unwrap();
        let mut secrets = Secrets::open(folder.path(), None, None, false).unwrap();
        secrets.environment = values(&[("B", "environment")]);
        assert_eq!(described(&secrets, "x", "A"), "A = default from .env");
        assert_eq!(described(&secrets, "x", "B"), "B = environment from environment");
        let named = folder.path().join("named");
        let mut secrets = Secrets::open(folder.path(), None, Some(&named), true).unwrap();
        secrets.environment.clear();
        assert_eq!(secrets.value("x", Environment::Staging, "A").unwrap().expose_secret(), "named");
        assert_eq!(described(&secrets, "x", "B"), "B = made-up-for-x-B from made up");
        let missing = Secrets::open(folder.path(), None, Some(&folder.path().join("missing")), false).err().unwrap();
        assert!(missing.to_string().contains("can't be read: it doesn't exist"), "{missing}");
        // It takes the place of the listed ones; where none is listed, it comes first.
        let listed = [dotenv(".env"), environment(), dotenv("other.env")];
        let labels = |listed: &[SecretSource]| {
            let secrets = Secrets::open(folder.path(), Some(listed), Some(&named), false).unwrap();
            secrets.sources.iter().map(|source| source.label(Environment::Production)).collect::<Vec<_>>()
        };
        let path = named.to_string_lossy().into_owned();
        assert_eq!(labels(&listed), [path.clone(), "environment".to_owned()]);
        assert_eq!(labels(&[environment()]), [path, "environment".to_owned()]);
    }

    #[test]
    fn a_source_is_looked_into_for_its_purpose_and_its_names() {
        let folder = tempfile::tempdir().unwrap();
        for (file, value) in [("deploy.env", "deploy"), ("all.env", "all")] {
            let text = ["T", "SHOP_T", "ACME__SHOP_T", "ACME__T"].map(|name| format!("{name}={value}\n")).concat();
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let deploy = SecretSource { purpose: Some(SourcePurpose::Deploy), ..dotenv("deploy.env") };
        let listed = SecretSource { names: Some(vec!["SHOP_*".to_owned()]), ..dotenv("all.env") };
        let workers = SecretSource { purpose: Some(SourcePurpose::Workers), ..dotenv("all.env") };
        let mut secrets = open(folder.path(), &[deploy, listed]);
        secrets.environment.clear();
        assert_eq!(described(&secrets, "acme", "SHOP_T"), "ACME__SHOP_T = all from all.env");
        assert_eq!(described(&secrets, "bluebird", "SHOP_T"), "SHOP_T = all from all.env");
        assert_eq!(described(&secrets, "acme", "T"), "nowhere");
        assert_eq!(secrets.token("T").unwrap().expose_secret(), "deploy");
        let stores = secrets.stores(&std::collections::BTreeSet::new());
        let takes = |name: &str| stores.iter().map(|store| store.takes(name)).collect::<Vec<_>>();
        assert_eq!(
            (takes("ACME__SHOP_T"), takes("ACME__T"), takes("TOKEN")),
            (vec![false, true], vec![false, false], vec![true, true])
        );
        let mut secrets = open(folder.path(), &[workers]);
        secrets.environment.clear();
        assert!(secrets.token("T").is_none() && secrets.named("T").is_none());
    }

    #[test]
    fn a_broken_dotenv_file_is_told_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e");
        std::fs::write(&path, "A=1\nB='canary-value\n").unwrap();
        let failure = Secrets::open(folder.path(), None, Some(&path), false).err().unwrap();
        assert!(!format!("{failure} {:?}", failure.hints).contains("canary"));
    }

    #[test]
    fn a_program_is_asked_once_for_each_value() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            "echo $0 >> asked; case $0 in NONE) ;; BAD) echo no canary-01 >&2; exit 7 ;; *) echo $0-$1-$2 ;; esac";
        let secrets = open(folder.path(), &[command(script), dotenv("a.env")]);
        for _ in 0..3 {
            assert_eq!(described(&secrets, "acme", "A"), "ACME__A = A-acme-production from command sh");
        }
        assert_eq!(described(&secrets, "acme", "NONE"), "nowhere");
        assert_eq!(described(&secrets, "acme", "BAD"), "hidden by command sh: sh ended with 7: no ***");
        assert_eq!(std::fs::read_to_string(folder.path().join("asked")).unwrap(), "A\nNONE\nBAD\n");
        // It differs between customers, so that it isn't asked for an account's token.
        assert!(secrets.token("A").is_none());
        let shared =
            SecretSource { command: Some(vec!["echo".into(), "{name}-value".into()]), ..SecretSource::default() };
        assert_eq!(open(folder.path(), &[shared]).token("A").unwrap().expose_secret(), "A-value");
    }

    #[test]
    fn a_source_that_cannot_say_hides_those_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.env"), "A=old\n").unwrap();
        std::fs::write(folder.path().join("s.age"), "canary").unwrap();
        let identity =
            |name: &str| Some(flotilla_model::spec::IdentityPlace { env: Some(name.to_owned()), file: None });
        let age = |path: &str| SecretSource {
            age: Some(path.to_owned()),
            identity: identity("NO_SUCH_KEY"),
            ..SecretSource::default()
        };
        let secrets = open(folder.path(), &[age("s.age"), dotenv("a.env")]);
        assert_eq!(described(&secrets, "x", "A"), "hidden by s.age: NO_SUCH_KEY, which decrypts it, is not set");
        assert_eq!(secrets.closed().len(), 1);
        assert!(secrets.token("A").is_none());
        assert_eq!(secrets.named("A").unwrap().expose_secret(), "old", "a variable of this machine");
        // Not behind one that doesn't exist, nor before it.
        assert_eq!(
            described(&open(folder.path(), &[age("none.age"), dotenv("a.env")]), "x", "A"),
            "A = old from a.env"
        );
        std::fs::write(folder.path().join("a.env"), "A=old\nX__A=own\n").unwrap();
        let before = open(folder.path(), &[dotenv("a.env"), age("s.age")]);
        assert_eq!(described(&before, "x", "A"), "X__A = own from a.env");
        assert_eq!(
            described(&before, "y", "A"),
            "hidden by s.age: NO_SUCH_KEY, which decrypts it, is not set",
            "it may be its own"
        );
        let mut secrets = open(folder.path(), &[age("s.age")]);
        secrets.environment = values(&[("NO_SUCH_KEY", "AGE-SECRET-KEY-1CANARY")]);
        assert_eq!(
            described(&secrets, "x", "A"),
            "hidden by s.age: NO_SUCH_KEY: it contains something other than age identities"
        );
    }

    #[test]
    fn a_program_that_hangs_is_not_asked_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let hangs = SecretSource { timeout: Some(1), at_once: Some(1), ..command("sleep 60") };
        let secrets = open(folder.path(), &[hangs]);
        let start = std::time::Instant::now();
        let all: Vec<String> = (0..20).map(|index| described(&secrets, "x", &format!("N{index}"))).collect();
        assert_eq!(all[19], "hidden by command sh: sh timed out 3 times in a row, and is not called any more");
        assert!(start.elapsed().as_secs() < 20);
    }

    #[test]
    fn a_hundred_thousand_workers_are_looked_up_in_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..1000).map(|index| format!("C{index}__TOKEN=value-{index}\n")).collect();
        std::fs::write(folder.path().join(".env"), lines + "TOKEN=all\nKEY=all\n").unwrap();
        let secrets = Secrets::open(folder.path(), None, None, false).unwrap();
        let start = std::time::Instant::now();
        let fingerprints = Fingerprints::new(b"a key");
        let mut found = 0;
        for index in 0..100_000 {
            let customer = format!("c{index}");
            for name in ["TOKEN", "KEY", "NOT_THERE"] {
                if let Some(value) = secrets.value(&customer, Environment::Production, name) {
                    found += usize::from(fingerprints.of(value.expose_secret()).len() == 32);
                }
            }
        }
        assert_eq!(found, 200_000);
        // Without optimisation, on a machine with other work: far from what a file or a process for each would take.
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
