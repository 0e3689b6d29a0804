//! Writes a fleet of any size: `cargo run --release --example generate-fleet -- FOLDER CUSTOMERS`.

use std::path::Path;
use std::process::ExitCode;

mod fleet;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, customers] = arguments.as_slice() else {
        eprintln!("usage: generate-fleet FOLDER CUSTOMERS");
        return ExitCode::from(2);
    };
    let Ok(customers) = customers.parse() else {
        eprintln!("{customers:?} is not a number of customers");
        return ExitCode::from(2);
    };
    let folder = Path::new(folder);
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    match copy(&pack, &folder.join("templates")).and_then(|()| fleet::write(folder, customers)) {
        Ok(()) => {
            println!("{customers} customers in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
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
