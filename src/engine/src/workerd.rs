//! workerd on this machine: for the local Cloudflare emulator. Doesn't know what it runs.

use std::path::PathBuf;

use flotilla_model::cache;
use flotilla_model::failure::Failure;
use flotilla_model::progress::Progress;

/// The folder of the workers that serve static assets, which miniflare brings; installed at the first use. Without its optional packages, which
/// are other programs.
pub fn asset_workers(progress: &dyn Progress) -> Result<PathBuf, Failure> {
    let (package, lock) = (
        include_bytes!("../../local/npm-assets/package.json"),
        include_bytes!("../../local/npm-assets/package-lock.json"),
    );
    let folder = cache::npm_without_optional("the workers that serve static assets", package, lock, progress)?;
    Ok(folder.join("node_modules/miniflare/dist/src/workers/assets"))
}

/// The path of workerd, which runs workers on this machine; installed at the first use. An npm package, pinned by a lock file of flotilla's own.
pub fn path(progress: &dyn Progress) -> Result<PathBuf, Failure> {
    let (package, lock) =
        (include_bytes!("../../local/npm/package.json"), include_bytes!("../../local/npm/package-lock.json"));
    let folder = cache::npm("workerd", package, lock, progress)?;
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let processor = if cfg!(target_arch = "aarch64") { "arm64" } else { "64" };
    Ok(folder.join(format!("node_modules/@cloudflare/workerd-{system}-{processor}/bin/workerd")))
}
