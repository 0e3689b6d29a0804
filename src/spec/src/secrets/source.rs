//! One source of secrets: its kind, its name, and the content of its files. Opens each file at most once.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::failure::Failure;
use flotilla_model::spec::{Environment, IdentityPlace, SecretSource};

use super::age;
use super::command::Program;
use super::entries::{self, Form};
use super::program::{self, Trouble};
use crate::dotenv;

/// The placeholder of the environment in a path.
const PLACEHOLDER: &str = "{environment}";
/// The time limit of a program, unless fleet.yaml sets another.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A larger file isn't one of secrets.
const LARGEST: u64 = 8 << 20;

/// The result of looking up a secret in a source.
pub enum Answer {
    /// Its value.
    Value(SecretString),
    /// It has none.
    None,
    /// It can't decide, for this reason.
    Unknown(String),
}

pub struct Source {
    pub kind: Kind,
    /// Its entry in fleet.yaml: what its values are for.
    pub listed: SecretSource,
    /// Given on the command line.
    named: bool,
}

pub enum Kind {
    Environment,
    File(File),
    Program(Program),
}

/// A file with the entries of all customers, perhaps one for each environment.
pub struct File {
    pub root: PathBuf,
    /// Its path, perhaps with `{environment}`.
    pub path: String,
    pub cipher: Cipher,
    /// Whether there is one for each environment.
    varies: bool,
    /// The content of each file, opened at its first use. Which files there are is looked up at the first use of any.
    content: OnceLock<BTreeMap<Environment, OnceLock<Content>>>,
}

/// The encryption of a file.
pub enum Cipher {
    Clear,
    Age { identity: IdentityPlace, recipients: Option<Vec<String>> },
    Sops { timeout: Duration },
}

/// The content of a file.
pub enum Content {
    Values(HashMap<String, SecretString>),
    /// The file doesn't exist.
    Absent,
    /// It can't be opened here, for this reason.
    Closed(String),
}

/// The content of the file of an environment that has none.
static ABSENT: Content = Content::Absent;

impl Source {
    /// Returns a source of fleet.yaml. Nothing is read before it is needed.
    pub fn new(root: &Path, listed: &SecretSource) -> Source {
        let timeout = listed.timeout.map_or(TIMEOUT, Duration::from_secs);
        let file = |path: &String, cipher| File {
            root: root.to_owned(),
            path: path.clone(),
            cipher,
            varies: path.contains(PLACEHOLDER),
            content: OnceLock::new(),
        };
        let kind = match listed {
            SecretSource { dotenv: Some(path), .. } => Kind::File(file(path, Cipher::Clear)),
            SecretSource { age: Some(path), identity: Some(identity), recipients, .. } => {
                Kind::File(file(path, Cipher::Age { identity: identity.clone(), recipients: recipients.clone() }))
            }
            SecretSource { sops: Some(path), .. } => Kind::File(file(path, Cipher::Sops { timeout })),
            SecretSource { command: Some(words), at_once, .. } => {
                Kind::Program(Program::new(root, words, timeout, *at_once))
            }
            _ => Kind::Environment,
        };
        Source { kind, listed: listed.clone(), named: false }
    }

    /// Returns the dotenv file of the command line, which has to be there.
    pub fn named(path: &Path) -> Result<Source, Failure> {
        // From where the command is run, not from the project's root.
        let file = File {
            root: PathBuf::new(),
            path: path.to_string_lossy().into_owned(),
            cipher: Cipher::Clear,
            varies: false,
            content: OnceLock::new(),
        };
        let unreadable = |why: String| Failure::new(format!("the dotenv file {} can't be read: {why}", path.display()));
        let read = read_clear(path).map_err(unreadable)?.ok_or_else(|| unreadable("it doesn't exist".to_owned()))?;
        let _ = file.slot(Environment::Production).map(|content| content.set(Content::Values(read)));
        Ok(Source { kind: Kind::File(file), listed: SecretSource::default(), named: true })
    }

    pub fn is_named(&self) -> bool {
        self.named
    }

    /// Returns its path in an environment.
    pub fn label(&self, environment: Environment) -> String {
        match &self.kind {
            Kind::Environment => "environment".to_owned(),
            Kind::File(file) => file.path_in(environment),
            // Its arguments may hold what isn't everybody's.
            Kind::Program(program) => format!("command {}", program.words[0]),
        }
    }

    /// Returns the value of a name in a dotenv file that is the same in all environments.
    pub fn clear(&self, name: &str) -> Option<SecretString> {
        match &self.kind {
            Kind::File(file @ File { cipher: Cipher::Clear, .. }) if !file.varies() => {
                match file.content(Environment::Production, |_| None) {
                    Content::Values(values) => {
                        values.get(name).filter(|value| !value.expose_secret().is_empty()).cloned()
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Returns whether it has the same for all customers and environments.
    pub fn is_for_all(&self) -> bool {
        match &self.kind {
            Kind::Environment => true,
            Kind::File(file) => !file.varies(),
            Kind::Program(program) => {
                !program.words.iter().any(|word| word.contains("{customer}") || word.contains("{environment}"))
            }
        }
    }

    /// Returns the number of its programs that run at once, if it has one.
    pub fn at_once(&self) -> Option<usize> {
        if let Kind::Program(program) = &self.kind { Some(program.at_once.into()) } else { None }
    }

    /// Returns the parts that were used and are unavailable: of a program, one of its failures.
    pub fn closed(&self) -> Vec<(String, String)> {
        let file = match &self.kind {
            Kind::Environment => return Vec::new(),
            Kind::File(file) => file,
            Kind::Program(program) => {
                let label = self.label(Environment::Production);
                return program.failure().map(|why| (label, why)).into_iter().collect();
            }
        };
        let closed = file.contents().filter_map(|(path, content)| match content {
            Content::Closed(why) => Some((path, why.clone())),
            _ => None,
        });
        closed.collect()
    }

    /// Returns the errors of its dotenv files that were used.
    pub fn errors(&self) -> Vec<Diagnostic> {
        if let Kind::File(file) = &self.kind { file.errors() } else { Vec::new() }
    }

    /// Returns whether only errors in its files can make it unavailable.
    pub fn is_clear(&self) -> bool {
        matches!(&self.kind, Kind::File(File { cipher: Cipher::Clear, .. }))
    }

    /// Returns the names in its files: in dotenv files, and in others as far as they were read.
    pub fn names(&self) -> Vec<(String, Vec<String>)> {
        let Kind::File(file) = &self.kind else { return Vec::new() };
        for environment in file.environments().filter(|_| self.is_clear()) {
            let _ = file.content(environment, |_| None);
        }
        let names = file.contents().filter_map(|(path, content)| match content {
            Content::Values(values) => Some((path, values.keys().cloned().collect())),
            _ => None,
        });
        names.collect()
    }
}

impl File {
    /// Returns whether there is one for each environment.
    pub fn varies(&self) -> bool {
        self.varies
    }

    /// Returns its path in an environment.
    pub fn path_in(&self, environment: Environment) -> String {
        if self.varies { self.path.replace(PLACEHOLDER, environment.as_ref()) } else { self.path.clone() }
    }

    /// Returns its path on disk.
    pub fn on_disk(&self, environment: Environment) -> PathBuf {
        self.root.join(self.path_in(environment))
    }

    /// Returns the environments that may have one of their own: the usual ones, and those whose file is there; of one for all, any.
    pub fn environments(&self) -> impl Iterator<Item = Environment> {
        self.slots().keys().copied()
    }

    fn slots(&self) -> &BTreeMap<Environment, OnceLock<Content>> {
        self.content.get_or_init(|| {
            let environments = match self.varies {
                true => files_by_environment(&self.root, &self.path).into_keys().collect(),
                false => vec![Environment::Production],
            };
            environments.into_iter().map(|environment| (environment, OnceLock::new())).collect()
        })
    }

    fn slot(&self, environment: Environment) -> Option<&OnceLock<Content>> {
        self.slots().get(if self.varies { &environment } else { &Environment::Production })
    }

    fn contents(&self) -> impl Iterator<Item = (String, &Content)> {
        self.slots().iter().filter_map(|(environment, slot)| Some((self.path_in(*environment), slot.get()?)))
    }

    /// Returns the errors of a dotenv file that was used and can't be read. Nothing of a value is in them.
    fn errors(&self) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        for (environment, slot) in self.slots().iter().filter(|_| matches!(self.cipher, Cipher::Clear)) {
            let Some(Content::Closed(why)) = slot.get() else { continue };
            let path = self.path_in(*environment);
            let text = bytes(&self.on_disk(*environment)).ok().flatten();
            let lines = text.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(dotenv::read);
            let wrong = lines.map(|(_, wrong)| wrong).unwrap_or_default();
            errors.extend(wrong.iter().map(|wrong| {
                let (span, file) = (wrong.span, path.clone());
                let place = Place { file, line: span.line, column: span.column, width: 1 };
                Diagnostic::error(Code::BadSecretSource, place, wrong.message.clone(), wrong.help)
            }));
            if wrong.is_empty() {
                let help = "write lines `NAME=value`, or remove it under `secrets` in fleet.yaml";
                errors.push(Diagnostic::error(Code::BadSecretSource, Place::file(&path), why.clone(), help));
            }
        }
        errors
    }

    /// Returns its content; it is opened at its first use. `variable` looks up where its key is.
    pub fn content(&self, environment: Environment, variable: impl Fn(&str) -> Option<SecretString>) -> &Content {
        let Some(slot) = self.slot(environment) else { return &ABSENT };
        slot.get_or_init(|| {
            let path = self.on_disk(environment);
            let opened = match &self.cipher {
                Cipher::Clear => read_clear(&path),
                Cipher::Age { .. } => self
                    .plain(environment, variable)
                    .and_then(|text| text.map(|text| entries::parse(&text, Form::of(&self.path))).transpose()),
                Cipher::Sops { .. } if !path.exists() => Ok(None),
                Cipher::Sops { timeout } => self.sops(&path, *timeout).map(Some),
            };
            match opened {
                Ok(Some(values)) => Content::Values(values),
                Ok(None) => Content::Absent,
                Err(why) => Content::Closed(why),
            }
        })
    }

    /// Returns the text in it, in plain text, if it exists.
    pub fn plain(
        &self,
        environment: Environment,
        variable: impl Fn(&str) -> Option<SecretString>,
    ) -> Result<Option<Zeroizing<String>>, String> {
        let Some(bytes) = bytes(&self.on_disk(environment)).map_err(|error| format!("it can't be read: {error}"))?
        else {
            return Ok(None);
        };
        match &self.cipher {
            Cipher::Clear => match std::str::from_utf8(&bytes) {
                Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
                Err(_) => Err("it is not UTF-8".to_owned()),
            },
            Cipher::Age { identity, .. } => age::open(&bytes, &identities(&self.root, identity, variable)?).map(Some),
            Cipher::Sops { .. } => Err("only sops can write it".to_owned()),
        }
    }

    fn sops(&self, path: &Path, timeout: Duration) -> Result<HashMap<String, SecretString>, String> {
        let words = ["sops", "decrypt", "--output-type", "json"].map(str::to_owned);
        let words: Vec<String> = words.into_iter().chain([path.to_string_lossy().into_owned()]).collect();
        let ended = program::run(&words, &self.root, timeout).map_err(|trouble| match trouble {
            Trouble::NotStarted => "sops is not installed".to_owned(),
            Trouble::TimedOut => format!("sops took more than {} s", timeout.as_secs()),
            Trouble::TooMuch => "it is too large".to_owned(),
        })?;
        if ended.code != Some(0) {
            return Err(program::failed("sops", ended.code, &ended.complaint));
        }
        // As text and nothing else: of a number, zeros at the beginning would be lost.
        let values: HashMap<String, String> = serde_json::from_slice(&ended.printed).map_err(|_| {
            "it contains something other than names and text: put numbers in quotes, and use no maps".to_owned()
        })?;
        Ok(values.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
    }
}

/// Returns the files of a path with `{environment}`, by environment: those of the usual ones, and those that are there. A path for all
/// environments is production's.
pub fn files_by_environment(root: &Path, path: &str) -> BTreeMap<Environment, String> {
    let Some((before, after)) = path.split_once(PLACEHOLDER) else {
        return BTreeMap::from([(Environment::Production, path.to_owned())]);
    };
    let (folder, start) = before.rsplit_once('/').map_or(("", before), |(folder, start)| (folder, start));
    let end = after.split('/').next().unwrap_or_default();
    let names = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let environment = |name: String| {
        let name = name.strip_prefix(start)?;
        // The placeholder may be in it twice.
        match end.split_once(PLACEHOLDER) {
            None => Environment::of(name.strip_suffix(end)?),
            Some((between, _)) => Environment::of(name.split_once(between).map_or(name, |(first, _)| first)),
        }
    };
    let found = names.filter_map(|entry| environment(entry.file_name().into_string().ok()?));
    let all = found.chain(Environment::USUAL).chain([Environment::Preview]).map(|environment| {
        let file = path.replace(PLACEHOLDER, environment.as_ref());
        (environment, file)
    });
    all.filter(|(environment, file)| !environment.is_own() || root.join(file).exists()).collect()
}

/// Returns the identities that open a file.
pub fn identities(
    root: &Path,
    place: &IdentityPlace,
    variable: impl Fn(&str) -> Option<SecretString>,
) -> Result<Vec<::age::x25519::Identity>, String> {
    match place {
        IdentityPlace { env: Some(name), .. } => {
            let text = variable(name).ok_or_else(|| format!("{name}, which decrypts it, is not set"))?;
            age::identities(text.expose_secret()).map_err(|why| format!("{name}: {why}"))
        }
        IdentityPlace { file, .. } => {
            let file = file.as_deref().unwrap_or_default();
            let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            let path = file.strip_prefix("~/").map_or_else(|| root.join(file), |below| home().join(below));
            let bytes = bytes(&path).map_err(|error| format!("the identity {file} can't be read: {error}"))?;
            let bytes = bytes.ok_or_else(|| format!("the identity {file}, which decrypts it, does not exist"))?;
            age::identities(&Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
                .map_err(|why| format!("{file}: {why}"))
        }
    }
}

/// Returns the bytes of a file, if it is there.
fn bytes(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.is_file() => Err(io::Error::other("it is not a file")),
        Ok(metadata) if metadata.len() > LARGEST => Err(io::Error::other("it is too large")),
        Ok(_) => std::fs::read(path).map(|bytes| Some(Zeroizing::new(bytes))),
    }
}

fn read_clear(path: &Path) -> Result<Option<HashMap<String, SecretString>>, String> {
    let Some(bytes) = bytes(path).map_err(|error| format!("it can't be read: {error}"))? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    entries::parse(text, Form::Dotenv).map(Some)
}
