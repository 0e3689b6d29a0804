//! The packs that are embedded in the program. Knows their files; writes none.

use clap::ValueEnum;
use flotilla_spec::pack::WRANGLER;
use include_dir::{Dir, include_dir};

/// A pack that is embedded in the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pack {
    /// A consent API for each customer
    #[default]
    Consent,
    /// A worker of your own code
    Worker,
    /// A wrangler project, whose code wrangler bundles where it is
    Wrangler,
    /// The worker in front of a dispatch namespace, added to an existing project
    Dispatch,
}

macro_rules! files {
    ($pack:literal: $($name:literal)+) => {
        &[$(($name, include_bytes!(concat!("../../../templates/", $pack, "/", $name)))),+]
    };
}

/// The files beside the folders that are embedded as a whole: what npm puts there isn't part of a pack.
type Files = &'static [(&'static str, &'static [u8])];

const CONSENT: Files = files!["consent":
    "README.md" "build.mjs" "catalogue.json" "index.ts.tera" "pack.yaml" "package-lock.json" "package.json"
    "schema-types.mjs" "tsconfig.json" "wrangler.jsonc.tera"
];
static CONSENT_FOLDERS: [(&str, Dir<'_>); 2] = [
    ("src", include_dir!("$CARGO_MANIFEST_DIR/../../templates/consent/src")),
    ("test", include_dir!("$CARGO_MANIFEST_DIR/../../templates/consent/test")),
];

const WORKER: Files = files!["worker":
    "README.md" "build.json" "build.mjs" "index.ts.tera" "pack.yaml" "package-lock.json" "package.json" "tsconfig.json"
    "wrangler.jsonc.tera"
];
static WORKER_FOLDERS: [(&str, Dir<'_>); 2] = [
    ("src", include_dir!("$CARGO_MANIFEST_DIR/../../templates/worker/src")),
    ("test", include_dir!("$CARGO_MANIFEST_DIR/../../templates/worker/test")),
];

const DISPATCH: Files = files!["dispatch":
    "README.md" "build.mjs" "index.ts.tera" "pack.yaml" "package-lock.json" "package.json" "tsconfig.json"
    "wrangler.jsonc.tera"
];
static DISPATCH_FOLDERS: [(&str, Dir<'_>); 2] = [
    ("src", include_dir!("$CARGO_MANIFEST_DIR/../../templates/dispatch/src")),
    ("test", include_dir!("$CARGO_MANIFEST_DIR/../../templates/dispatch/test")),
];

impl Pack {
    /// Returns its name, which is that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Pack::Consent => "consent",
            // The project starts with a pack that is called after its worker.
            Pack::Worker | Pack::Wrangler => "worker",
            Pack::Dispatch => "dispatch",
        }
    }

    /// Returns the files of its code that lie outside its folder, by path from the project's root.
    pub fn code(self) -> Vec<(String, Vec<u8>)> {
        let files = [
            ("worker/wrangler.jsonc", include_str!("init/wrangler/wrangler.jsonc")),
            ("worker/package.json", include_str!("init/wrangler/package.json")),
            ("worker/src/index.ts", include_str!("init/wrangler/index.ts")),
        ];
        let files = files.into_iter().filter(|_| self == Pack::Wrangler);
        files.map(|(path, text)| (path.to_owned(), text.replace("WRANGLER", WRANGLER).into_bytes())).collect()
    }

    /// Returns its files, by path within its folder.
    pub fn files(self) -> Vec<(String, Vec<u8>)> {
        let (beside, folders) = match self {
            Pack::Consent => (CONSENT, &CONSENT_FOLDERS),
            Pack::Worker => (WORKER, &WORKER_FOLDERS),
            Pack::Dispatch => (DISPATCH, &DISPATCH_FOLDERS),
            Pack::Wrangler => {
                let manifest = include_str!("init/wrangler/pack.yaml").replace("WRANGLER", WRANGLER);
                return vec![("pack.yaml".to_owned(), manifest.into_bytes())];
            }
        };
        let mut files: Vec<(String, Vec<u8>)> =
            beside.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        for (name, folder) in folders {
            let mut open = vec![folder];
            while let Some(folder) = open.pop() {
                open.extend(folder.dirs());
                let below = folder.files();
                files.extend(below.map(|file| (format!("{name}/{}", file.path().display()), file.contents().to_vec())));
            }
        }
        files
    }
}
