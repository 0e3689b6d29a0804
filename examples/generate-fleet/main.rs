//! Writes a fleet of any size: `cargo run --release --example generate-fleet -- FOLDER CUSTOMERS [--bad PERCENT | --wrangler | --assets FILES]`.
//! With `--bad`, so many specs of a hundred get a mistake, each one of those that people make. With `--wrangler`, the code is a wrangler
//! project. With `--assets`, the customers share a site of so many files.

use std::path::Path;
use std::process::ExitCode;

mod assets;
mod fleet;
mod wrangler;

const USAGE: &str = "usage: generate-fleet FOLDER CUSTOMERS [--bad PERCENT | --wrangler | --assets FILES]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, customers, percent, files) = match words.as_slice() {
        [folder, customers] | [folder, customers, "--wrangler"] => (Path::new(folder), customers, "0", None),
        [folder, customers, "--bad", percent] => (Path::new(folder), customers, *percent, None),
        [folder, customers, "--assets", files] => (Path::new(folder), customers, "0", Some(*files)),
        _ => return usage(USAGE),
    };
    let Ok(customers) = customers.parse::<usize>() else {
        return usage(&format!("{customers:?} is not a number of customers"));
    };
    let Some(percent) = percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)) else {
        return usage(&format!("{percent:?} is not a number from 0 to 100"));
    };
    if let Some(files) = files {
        let Some(files) = files.parse().ok().filter(|files| *files >= 2) else {
            return usage(&format!("{files:?} is not a number of files from 2"));
        };
        return finished(folder, customers, 0, assets::write(folder, customers, files));
    }
    if words.last() == Some(&"--wrangler") {
        return finished(folder, customers, 0, wrangler::write(folder, customers));
    }
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let bad = (0..customers).filter(|number| fleet::is_bad(*number, percent)).count();
    let written = copy(&pack, &folder.join("templates")).and_then(|()| fleet::write(folder, customers, percent));
    finished(folder, customers, bad, written)
}

fn finished(folder: &Path, customers: usize, bad: usize, written: std::io::Result<()>) -> ExitCode {
    match written {
        Ok(()) => {
            println!("{customers} customers in {}, {bad} of them with a mistake", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn usage(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(2)
}

/// Copies a folder, without node_modules.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = (entry?, to);
        let target = to.join(entry.file_name());
        if entry.file_name() == "node_modules" {
            continue;
        } else if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
