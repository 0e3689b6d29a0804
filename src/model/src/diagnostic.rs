//! Diagnostics as values: code, place, message, help. Doesn't know who finds or prints them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::bounded;

/// The severity. An error skips its worker; a warning doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::AsRefStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// The worker can't be built.
    Error,
    /// Allowed, but probably not what was meant.
    Warning,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// The stable codes of diagnostics: a code keeps its meaning forever and is never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$name,)+];

            /// Returns the code as it is printed.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)+ }
            }

            /// Returns the meaning of the code, in a sentence or two.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The file can't be read.
    Unreadable = "Y0101",
    /// The file isn't UTF-8.
    NotUtf8 = "Y0102",
    /// The file is larger than 8 MiB.
    TooLarge = "Y0103",
    /// The file is a symbolic link, or something else that isn't a regular file.
    NotAFile = "Y0104",
    /// The file is empty.
    EmptyFile = "Y0105",
    /// The file isn't valid YAML.
    Syntax = "Y0106",
    /// A key appears twice in the same map.
    DuplicateKey = "Y0107",
    /// The file contains a second document.
    SecondDocument = "Y0108",
    /// The file is nested deeper than 64 levels.
    TooDeep = "Y0109",
    /// The file has more than 200,000 nodes or 16 MiB of text, or its aliases stand for more than 20,000 nodes or 1 MiB.
    TooMany = "Y0110",
    /// YAML that flotilla doesn't accept: tags, merge keys, keys that aren't strings, and numbers that JavaScript prints differently.
    Unsupported = "Y0111",
    /// A file that looks like a spec or a layer, but isn't read.
    Unread = "Y0112",
    /// An unknown key.
    UnknownKey = "S0201",
    /// A value of the wrong type.
    WrongType = "S0202",
    /// A required key is missing.
    MissingKey = "S0203",
    /// A value that isn't one of the allowed values.
    NotAllowed = "S0204",
    /// A value that doesn't match the expected format.
    WrongForm = "S0205",
    /// A literal value where a reference to a secret is required.
    LiteralSecret = "S0206",
    /// The customer's id isn't the name of its file.
    IdNotFileName = "S0207",
    /// Two specs have the same id.
    DuplicateId = "S0208",
    /// An account, pack, destination type or other name that isn't defined in fleet.yaml or in the pack.
    UnknownName = "S0209",
    /// Two keys that exclude each other.
    Conflict = "S0210",
    /// A name that is reserved by flotilla or Cloudflare.
    ReservedName = "S0211",
    /// A reference to a worker that has no address in that environment.
    NoAddress = "S0212",
    /// A worker that is its own caller, or that gets its own logs.
    Cycle = "S0213",
    /// A variable that holds a secret in plain text.
    SecretVariable = "S0214",
    /// A worker calls another one that isn't deployed, and that a deploy of the selected customers leaves out.
    CalleeNotDeployed = "S0215",
    /// A preview that would use production's data.
    ProductionData = "S0220",
    /// A spec that doesn't define whether a worker exists in an environment in which it isn't deployed.
    ImpliedEnvironment = "S0221",
    /// An environment that one customer alone has, and whose name is almost that of others' environment.
    SimilarEnvironment = "S0222",
    /// A custom domain that isn't a host name.
    BadDomain = "N0301",
    /// Two workers claim the same host name.
    DuplicateDomain = "N0302",
    /// A worker name that Cloudflare doesn't accept.
    BadWorkerName = "N0303",
    /// Two workers in one account claim the same name.
    DuplicateWorkerName = "N0304",
    /// A route whose pattern is invalid, or isn't in its zone.
    BadRoute = "N0305",
    /// Two workers claim the same route.
    DuplicateRoute = "N0306",
    /// A cron trigger that isn't an expression with five fields.
    BadCron = "N0307",
    /// A trusted origin that isn't a scheme and a host without a path.
    BadOrigin = "N0308",
    /// A worker that nothing can reach: no domain, no route, and workers.dev is off.
    Unreachable = "N0309",
    /// A setting that a worker in a dispatch namespace can't have.
    NotInNamespace = "N0310",
    /// A setting that has no effect.
    NoEffect = "N0311",
    /// A database that is used by two customers, or by two environments that inherit it.
    SharedDatabase = "N0312",
    /// A secret that the customer may not use: it belongs to another customer, to flotilla, CI or another program, or fleet.yaml doesn't
    /// list it.
    ForeignSecret = "N0313",
    /// A route takes requests that are meant for another customer or worker.
    SharedHost = "N0314",
    /// Routes of several customers on one host.
    CloseHosts = "N0315",
    /// A host of a worker in a dispatch namespace that no route or domain of the dispatch worker covers.
    Undispatched = "N0316",
    /// Two workers consume the same queue.
    DuplicateConsumer = "N0317",
    /// Two workers define the same workflow.
    DuplicateWorkflow = "N0318",
    /// More workers than an account can hold outside dispatch namespaces.
    TooManyWorkers = "L0401",
    /// More variables and secrets than a worker can have.
    TooManyVariables = "L0402",
    /// A variable that is larger than Cloudflare allows.
    VariableTooLarge = "L0403",
    /// More cron triggers than an account can have.
    TooManyCrons = "L0404",
    /// More custom domains than a zone can have.
    TooManyDomains = "L0405",
    /// More routes than a zone can have.
    TooManyRoutes = "L0406",
    /// A worker with routes in more zones than it can have.
    TooManyZones = "L0407",
    /// More D1 databases than an account can have.
    TooManyDatabases = "L0408",
    /// A worker's module and the pack's bundle together exceed the size limit of an upload.
    ScriptTooLarge = "L0409",
    /// A tenth of a limit or less is left.
    AlmostFull = "L0410",
    /// More static assets than a worker can have.
    TooManyAssets = "L0411",
    /// A static asset that is larger than 25 MiB.
    AssetTooLarge = "L0412",
    /// More queues than an account can have.
    TooManyQueues = "L0413",
    /// More KV namespaces than an account can have.
    TooManyKvNamespaces = "L0414",
    /// The project has no customers.
    NoCustomers = "F0501",
    /// The project has no fleet.yaml.
    NoFleetFile = "F0502",
    /// A pattern for worker names that gives several workers the same name.
    BadNamePattern = "F0503",
    /// An entry under `diagnostics` in fleet.yaml for an error. Only the severity of warnings can be changed.
    LoweredError = "F0504",
    /// An entry under `diagnostics` in fleet.yaml that matches nothing.
    UnusedRule = "F0505",
    /// A layer whose file or folder doesn't exist.
    BadLayer = "F0506",
    /// A source of secrets that can't be used.
    BadSecretSource = "F0507",
    /// A file with secrets in plain text that git tracks, or whose status is unknown because git refuses to read the repository.
    TrackedSecrets = "F0508",
    /// A pack that can't be read.
    BadPack = "P0601",
    /// A template that Tera can't parse.
    BadTemplate = "P0602",
    /// A template that fails while it is rendered.
    RenderFailed = "P0603",
    /// A rendered file that can't be parsed.
    RenderedInvalid = "P0604",
    /// A pack whose code can't be bundled.
    RuntimeFailed = "P0605",
    /// A pack's wrangler configuration that can't be used.
    BadWranglerConfig = "P0606",
    /// A setting of a pack's wrangler configuration that flotilla can't deploy yet.
    CannotDeploy = "P0607",
    /// wrangler or Node.js is missing, or too old for a pack.
    NoWrangler = "P0608",
    /// A setting of a pack's wrangler configuration that no spec has, so that no worker gets it.
    NotInSpecs = "P0609",
    /// Migrations or declared Durable Object classes of a pack that Cloudflare would reject.
    BadMigration = "P0610",
    /// A class that a worker binds or its migrations create, but that its code doesn't export.
    MissingClass = "P0611",
    /// Static assets that can't be read or can't be deployed.
    BadAssets = "P0612",
    /// A line of `_headers` or `_redirects` that Cloudflare would reject.
    BadAssetRule = "P0613",
    /// The entry point of a pack's wrangler project doesn't exist, and no command that flotilla runs creates it.
    NoEntryPoint = "P0615",
    /// A migration of a D1 database that can't be read or that D1 would reject.
    BadSql = "P0620",
    /// A migration of a D1 database that was edited or removed after it was applied.
    AppliedMigration = "P0621",
}

impl Code {
    /// Returns its severity, unless fleet.yaml makes a warning an error.
    pub fn severity(self) -> Severity {
        match self {
            Code::Unreachable
            | Code::NoEffect
            | Code::CloseHosts
            | Code::Undispatched
            | Code::AlmostFull
            | Code::UnusedRule
            | Code::TrackedSecrets
            | Code::SecretVariable
            | Code::CalleeNotDeployed
            | Code::SimilarEnvironment
            | Code::NotInSpecs
            | Code::NoEntryPoint => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Returns the code with this text.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text).ok_or_else(|| D::Error::custom(format!("there is no code {text}")))
    }
}

impl JsonSchema for Code {
    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "enum": Code::ALL})
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A place in a file. Lines and columns count from 1, columns in characters; line 0 is the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The path from the project's root, with `/`.
    pub file: String,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 when the whole file is meant.
    pub column: usize,
    /// The number of characters, at least 1.
    #[serde(skip)]
    pub width: usize,
}

impl Place {
    /// Returns a whole file.
    pub fn file(file: &str) -> Place {
        Place { file: file.to_owned(), line: 0, column: 0, width: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{}:{}", self.file, line, self.column),
        }
    }
}

/// One diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The code.
    pub code: Code,
    /// The severity.
    pub severity: Severity,
    /// The message: in lower case, without a full stop. It names the invalid value; the middle of a long value is left out.
    pub message: String,
    /// The place.
    #[serde(flatten)]
    pub place: Place,
    /// The way to fix it.
    pub help: String,
    /// Related places, each with a label: the first of two equal keys, the other claim.
    #[serde(serialize_with = "with_labels")]
    pub related: Box<[(Place, String)]>,
}

impl Diagnostic {
    /// Returns an error.
    #[track_caller]
    pub fn error(code: Code, place: Place, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        debug_assert_eq!(code.severity(), Severity::Error, "BUG: {code} is a warning");
        let (message, help) = (bounded(message.into()), bounded(help.into()));
        Diagnostic { code, severity: Severity::Error, message, place, help, related: Box::default() }
    }

    /// Returns a warning.
    #[track_caller]
    pub fn warning(code: Code, place: Place, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        debug_assert_eq!(code.severity(), Severity::Warning, "BUG: {code} is an error");
        let (message, help) = (bounded(message.into()), bounded(help.into()));
        Diagnostic { code, severity: Severity::Warning, message, place, help, related: Box::default() }
    }

    /// Adds a related place, with a label.
    #[must_use]
    pub fn also(mut self, place: Place, label: impl Into<String>) -> Diagnostic {
        let mut related = std::mem::take(&mut self.related).into_vec();
        related.push((place, bounded(label.into())));
        Diagnostic { related: related.into_boxed_slice(), ..self }
    }
}

/// Serialises related places, each with its label as its message.
fn with_labels<S: Serializer>(related: &[(Place, String)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Related<'a> {
        #[serde(flatten)]
        place: &'a Place,
        message: &'a str,
    }
    serializer.collect_seq(related.iter().map(|(place, message)| Related { place, message }))
}

/// Sorted by file, line and column, each one once.
pub fn sorted(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics
        .sort_by(|a, b| (&a.place, a.severity, a.code, &a.message).cmp(&(&b.place, b.severity, b.code, &b.message)));
    diagnostics.dedup();
    diagnostics
}

/// Returns the candidate that was probably meant, as `did you mean …?`, if one is near enough.
pub fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = written.to_lowercase().replace(['_', '-'], "");
    let candidates: Vec<&str> = candidates.into_iter().collect();
    // The beginning of one of them alone: `prod`.
    let mut begun =
        candidates.iter().filter(|candidate| folded.len() > 2 && candidate.to_lowercase().starts_with(&folded));
    if let (Some(only), None) = (begun.next(), begun.next()) {
        return Some(only);
    }
    candidates
        .into_iter()
        .map(|candidate| {
            let other = candidate.to_lowercase().replace(['_', '-'], "");
            (strsim::damerau_levenshtein(&folded, &other), candidate)
        })
        // One edit for each three letters that the shorter one begins.
        .filter(|(distance, candidate)| {
            let shorter = candidate.chars().count().min(folded.chars().count());
            *distance <= shorter.div_ceil(3).min(4)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(did_you_mean("pixlId", ["pixelId", "accessToken"]), Some("pixelId"));
        assert_eq!(did_you_mean("trusted_origins", ["trustedOrigins"]), Some("trustedOrigins"));
        assert_eq!(did_you_mean("prod", ["development", "production"]), Some("production"));
        assert_eq!(did_you_mean("colour", ["pixelId", "accessToken"]), None);
        assert_eq!(did_you_mean("bogus", ["logpush"]), None);
        assert_eq!(did_you_mean("tyni", ["tiny"]), Some("tiny"));
        assert_eq!(did_you_mean("nmae", ["name"]), Some("name"));
        assert_eq!(did_you_mean("ib", ["id"]), Some("id"));
    }
}
